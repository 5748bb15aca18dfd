"""What a run costs, in closed form: parameters, FLOPs, bytes, and a ledger of what was really done. No torch."""
