"""Letting layouts that are no store's share their blobs with one."""
