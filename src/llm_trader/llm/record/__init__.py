"""What was asked of language models, what they replied, and what was decided with it.

`requests`    the hash by which a request is found again
`database`    the SQLite file, and its tables
`owners`      which of the processes that record still live
`call_rows`   a recorded call, and its row
`calls`       every call, recorded before it is made and before its reply is used
`decisions`   every decision with all that it was made of
`statistics`  what decisions cost, and what followed them
"""
