"""Activity: what agents and tools say that a grant was used for.

It is a claim, and recorded as one: who made it (which credential, held by whom), of what grant, when. Names
are OpenTelemetry's for generative AI, so that a trace and the log tell of one thing in one word. What was
said, asked or answered never enters the log: its digest does, so that whoever kept the text can prove it.
"""
