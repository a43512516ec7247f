"""The loop: what is watched lands in the store, what is dirty lands in the queue, one pass does the rest.

A pass is `gather → decide → apply` for one key (`reconcile`). Create, update, restart and deadline take the
same path; the handlers only mark keys dirty. One queue with priorities serves all kinds, one heap holds all
deadlines, and only the holder of the Lease takes from the queue.
"""
