"""What a witness decides: whether to put its name under the head of somebody else's log.

It keeps one thing for each log, the newest head that it cosigned, and cosigns only a head that goes on from
there. So two histories of one log never both bear its name, whoever holds the log's key and its storage.
The protocol is C2SP tlog-witness.md. Nothing here reads, writes or knows the time.
"""
