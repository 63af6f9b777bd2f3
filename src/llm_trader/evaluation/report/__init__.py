"""An evaluation's metrics as sentences and as an HTML page. Verdicts are made in `../verdict`.

`view_model`   what the page shows, computed from `Metrics`: groups, counts and charts
`charts`       figures as Plotly's JSON, of plain lists
`wording`      the headline, the readings and the warnings, also for the terminal
`formats`      numbers as people read them
`templates/`   the page and its sections, with the text that only the page has
`page`         renders the templates into one file
"""
