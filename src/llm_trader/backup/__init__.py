"""Backups of the market store and of the index, and the proof that they answer as before.

A backup is a folder that its `manifest.json` describes. The manifest is written last: a backup
without one is unfinished, and is never restored.

`manifest`  the manifest of a backup, and the backups in a folder
`files`     copies and digests of files, with progress and errors of the disk
`contents`  the content of a copy: described, and compared with its description
`cluster`   the collection of a Qdrant server: copied as snapshots of its nodes, and restored
`create`    creates a backup while others read and write
`verify`    checks that a backup is whole, and that its copies open and answer
`restore`   restores a backup to empty places, after proving that it answers as before
"""
