"""The vendor's client, imported without the deprecation warning of a library it imports, which nobody here can heed."""

import warnings

import authlib.deprecate  # noqa: F401 - first, because it puts a filter of its own before everybody else's

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="The httpx module is deprecated")
    from weaviate import WeaviateAsyncClient
    from weaviate.classes.config import ConsistencyLevel
    from weaviate.classes.data import DataObject
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout
    from weaviate.classes.query import Filter, HybridFusion, MetadataQuery, Sort
    from weaviate.collections import CollectionAsync
    from weaviate.connect import ConnectionParams
    from weaviate.exceptions import (
        AuthenticationFailedError,
        InsufficientPermissionsError,
        UnexpectedStatusCodeError,
        WeaviateBaseError,
        WeaviateInsertManyAllFailedError,
        WeaviateStartUpError,
    )

__all__ = [
    "AdditionalConfig",
    "Auth",
    "AuthenticationFailedError",
    "CollectionAsync",
    "ConnectionParams",
    "ConsistencyLevel",
    "DataObject",
    "Filter",
    "HybridFusion",
    "InsufficientPermissionsError",
    "MetadataQuery",
    "Sort",
    "Timeout",
    "UnexpectedStatusCodeError",
    "WeaviateAsyncClient",
    "WeaviateBaseError",
    "WeaviateInsertManyAllFailedError",
    "WeaviateStartUpError",
]
