"""The hosted services that render: one module for each dialect, over shared HTTP."""
