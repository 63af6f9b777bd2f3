"""Many processes that serve as one.

`parent`    starts the workers, restarts the dead, replaces them one by one
`process`   a worker as the parent knows it
`fleet`     what is known of the workers, and their counts as those of one server
`slots`     which worker accepts for which slot, and how long to wait before a restart
`worker`    the process that answers queries
`channel`   calls between parent and worker, over a socket that only they have
"""
