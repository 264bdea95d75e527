"""boto3 without the surroundings: no profile, no files, no metadata service of the machine that runs the tests."""

from __future__ import annotations

import os

import boto3
import botocore.session


def isolated() -> boto3.Session:
    nothing = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
        "credentials_file": (None, None, os.devnull, None),
        "ignore_configured_endpoint_urls": (None, None, True, None),
    }
    session = botocore.session.Session(session_vars=nothing)  # type: ignore[arg-type,unused-ignore]
    return boto3.Session(botocore_session=session, region_name="eu-central-1")
