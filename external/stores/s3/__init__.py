"""A store on S3: the bucket, its sidecars, commits, leases."""

from .s3_store import S3Store

__all__ = ["S3Store"]
