(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_unlearn_complete() {
  local -a command found
  command=("$words[1]")
  case "${words[1]:t}" in
    python*)
      case "${words[2]:t}" in
        train.py|unlearn.py|evaluate.py) command+=("$words[2]") ;;
        *) _default; return ;;
      esac
      (( CURRENT > 2 )) || { _default; return } ;;
  esac
  local line="${(j: :)words[1,CURRENT]}"
  found=("${(@f)$(COMP_LINE="$line" "${command[@]}" -sc query=zsh 2>/dev/null)}")
  compadd -Q -S '' -- ${found:#}
}
compdef _unlearn_complete unlearn-train unlearn-run unlearn-evaluate python python3
