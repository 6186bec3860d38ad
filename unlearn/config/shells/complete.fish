function __unlearn_complete
    set -l parts (commandline -opc)
    set -l command $parts[1]
    if string match -q 'python*' -- (basename -- $parts[1])
        set command $parts[1..2]
    end
    env COMP_LINE=(commandline -cp) $command -sc query=fish 2>/dev/null
end
function __unlearn_script
    set -l parts (commandline -opc)
    test (count $parts) -ge 2; and contains -- (basename -- $parts[2]) train.py unlearn.py evaluate.py
end
for name in unlearn-train unlearn-run unlearn-evaluate
    complete -c $name -f -a '(__unlearn_complete)'
end
for name in python python3
    complete -c $name -n __unlearn_script -f -a '(__unlearn_complete)'
end
