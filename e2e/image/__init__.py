"""The image check: carries out the Dockerfile's own lines without a registry, and starts what they made."""
