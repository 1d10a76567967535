"""How bash asks for completions: by the line as it was typed.

click takes the words that bash makes of it, but bash ends words at `:`, `@` and `=`, too, which
the names of images have.
"""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

# Bash replaces what follows the last of those, or begins with an @, and so are the answers cut.
_SOURCE = r"""
%(complete_func)s() {
    local line=${COMP_LINE:0:COMP_POINT} type value
    local word=${line##*[[:blank:]]}
    local kept=${word%%"${word##*[$COMP_WORDBREAKS]}"}
    kept=${kept%%@} COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
        dir) compopt -o dirnames ;;
        file) compopt -o default ;;
        plain) COMPREPLY+=("${value#"$kept"}") ;;
        esac
    done < <(COMP_WORDS=$line %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one at the cursor, and what there is of that."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if not words or line[-1:].isspace() else (words[:-1], words[-1])


def register() -> None:
    """Let click know this."""
    add_completion_class(_Bash)
