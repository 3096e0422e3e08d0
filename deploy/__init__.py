"""Building, packaging, and the ways to deploy: SAM, Terraform and CDK."""
