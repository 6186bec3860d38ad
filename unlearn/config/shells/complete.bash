_unlearn_complete() {
  local line="${COMP_LINE:0:COMP_POINT}" last found i
  local -a words command
  read -r -a words <<< "$line"
  COMPREPLY=()
  command=("${words[0]}")
  case "${words[0]##*/}" in
    python*)
      case "${words[1]##*/}" in
        train.py|unlearn.py|evaluate.py) command+=("${words[1]}") ;;
        *) return ;;
      esac ;;
  esac
  [[ "$line" == "${words[*]}" && ${#words[@]} -le ${#command[@]} ]] && return
  # Completions replace only what follows the last character that breaks words, such as "=".
  last="${line##*[[:space:]]}"
  local part="$last"
  for i in "=" ":"; do
    [[ "$COMP_WORDBREAKS" == *"$i"* ]] && part="${part##*"$i"}"
  done
  local prefix="${last%"$part"}"
  while IFS= read -r found; do
    [[ -n "$found" ]] && COMPREPLY+=("${found#"$prefix"}")
  done < <(COMP_LINE="$line" "${command[@]}" -sc query=bash 2>/dev/null)
}
complete -o nospace -o default -F _unlearn_complete unlearn-train unlearn-run unlearn-evaluate python python3
