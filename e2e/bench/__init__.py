"""The benchmark: what the operator costs and how fast it is, beside the raw write rate of the same run.

Run it with `make bench`. Machines differ and this one is shared, so that figures are read as ratios of
`raw_writes_per_s`, measured first. It asserts nothing; `report` shows each bar beside its figure.
"""
