"""One frozen tree of settings, composed of the rooms' own configs.

`tree`     the sections, the keys of all settings, their digest
`models`   the pydantic models that validate what is read
`loading`  reads command line, environment and TOML file, and reports all mistakes at once
"""
