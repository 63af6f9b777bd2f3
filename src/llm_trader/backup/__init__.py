"""Backups of the market store and of the index, and the proof that they answer as before.

A backup is a folder that its `manifest.json` describes. That is written last: without one the
backup is unfinished, and is never restored from.

`manifest`  what a backup says of itself, and which backups a folder holds
`files`     files copied and digested, with an operator's words where a disk refuses
`contents`  what a copy of a store or of an index holds, and whether it holds it still
`cluster`   the collection of a Qdrant server: snapshots of all its nodes, and back
`create`    a backup of one moment, whoever reads and writes meanwhile
`verify`    whether a backup is whole, and its copies open and answer
`restore`   a backup put where nothing was, proven before it is put there
"""
