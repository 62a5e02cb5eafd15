"""PeriFlow's `dataloading.sampler`, under its name there."""

from ..samplers import ResumableRandomSampler, ResumableSequentialSampler

__all__ = ["ResumableRandomSampler", "ResumableSequentialSampler"]
