"""Everything that starts or follows processes: one job, a sweep of jobs, the pool, workers over hosts."""
