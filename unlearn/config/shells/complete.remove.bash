complete -r unlearn-train unlearn-run unlearn-evaluate python python3 2>/dev/null
unset -f _unlearn_complete
