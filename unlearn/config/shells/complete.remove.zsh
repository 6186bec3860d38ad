compdef -d unlearn-train unlearn-run unlearn-evaluate python python3
unfunction _unlearn_complete
