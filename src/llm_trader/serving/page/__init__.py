"""The page for people, at `/` of the HTTP port: its files, and what it asks beside `rag.*`.

`files`        the files of `static/`, with the headers that keep the page to itself
`methods`      the methods that only the page needed so far
`comparison`   which features make two states alike
`data_report`  how complete the series of a symbol are
`evaluations`  what lies in the folder of reports
"""
