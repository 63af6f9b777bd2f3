"""Files, LMDB environments and SQLite files on disk, without knowing what is stored in them.

`environment.py` opens an LMDB environment, runs its transactions, translates its errors and follows
a replaced file. `pages.py` compares the pages of its file before LMDB relies on them.
`sqlite_file.py` opens a SQLite file, runs its transactions and translates its errors.
`writer_lock.py` admits one writer process to a folder, `files.py` writes a file as a whole or not
at all, and `surroundings.py` explains what disk, owner and limits refuse.
"""
