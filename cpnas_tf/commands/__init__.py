"""The commands, one module each: its docstring is the help, `define_flags` and `main` the rest."""

COMMANDS = (
    *("search", "front", "train", "evaluate", "export", "predict"),
    *("plot", "report", "profile", "ablate"),
)
