"""The continuity ledger: was every step handed on?"""
