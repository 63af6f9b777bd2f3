"""Files and LMDB environments on disk, without knowing what is stored in them.

`environment.py` is the only module that imports LMDB: it opens an environment, runs its
transactions, translates its errors and follows a replaced file. `writer_lock.py` admits one writer
process to a folder, and `files.py` writes a file as a whole or not at all.
"""
