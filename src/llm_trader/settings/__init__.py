"""One frozen tree of settings, composed of the rooms' own configs.

`tree`     the sections, the keys of all settings, their digest, and the models that validate them
`loading`  reads command line, environment and TOML file, and reports all mistakes at once
"""
