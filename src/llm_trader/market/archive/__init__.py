"""History from the files that Binance publishes, checked like any imported file.

`plan`      which files a span of time needs, and what is known of each
`checksum`  the SHA-256 that is published beside a file
`download`  fetches files: retries, waits as told, verifies
`filling`   takes a store through the files of a plan, in its order
"""
