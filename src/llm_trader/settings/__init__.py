"""One frozen tree of settings.

`tree`     every setting with its default, bounds and description
`loading`  from the command line, the environment and a TOML file, with every mistake told at once
"""
