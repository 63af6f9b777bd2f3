"""One frozen tree of settings, composed of the rooms' own configs.

`tree`     the sections, the keys of all settings, their digest
`models`   the pydantic model of a config, which validates what is read
`loading`  from the command line, the environment and a TOML file; reports all mistakes at once
"""
