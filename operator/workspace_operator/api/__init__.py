"""What users write: the custom resources as pydantic models, their constants, and the CRDs made from them."""
