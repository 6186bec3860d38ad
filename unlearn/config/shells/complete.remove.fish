for name in unlearn-train unlearn-run unlearn-evaluate
    complete -c $name -e
end
functions -e __unlearn_complete __unlearn_script
