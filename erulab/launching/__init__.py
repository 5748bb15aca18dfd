"""Everything that starts or follows processes: one job, a sweep of jobs, the pool, workers on one or several hosts."""
