"""The admin API: applications, users and sessions for operators, under ``/admin/v1``."""

from __future__ import annotations

from offhook.gateways.admin.api import AdminCore, admin_routes
from offhook.gateways.admin_token import ensure_token, read_token

__all__ = ["AdminCore", "admin_routes", "ensure_token", "read_token"]
