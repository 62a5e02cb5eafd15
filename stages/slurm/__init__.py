"""Training by Slurm: a job's script, the queue, following and ending jobs."""
