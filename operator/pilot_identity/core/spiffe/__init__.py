"""SPIFFE: who a pilot is, written so that a stranger can check it.

A *trust domain* is a root of trust, one for each stage. A *SPIFFE ID* is a name in it:
`spiffe://sandbox.example.org/ns/web/pilot/translator/task/t-1`. An *SVID* is a document that proves a name to
whoever holds the trust domain's *bundle*: an X.509-SVID is a certificate whose holder has its private key, a
JWT-SVID is a signed token for one audience. Everything else here is how to make these and how to doubt them::

    ids                   names, parsed once                                  SPIFFE-ID.md
    keys, jose            P-256, JWKs and thumbprints; strict base64url, JSON
    x509_svid, jwt_svid   make: template → sign → validate what was signed
    bundle, rotation      what verifiers are told, and when a new key may sign
    certificate, jwt_token, bundle_document   documents taken apart, nothing believed yet
    *_profile             the standards as tables, one row for each clause
    validation            all validators, and the list of all clauses

The package is pure: time, serial numbers, token ids and private keys are arguments, and signatures are
deterministic, so equal arguments give equal octets. Where the standard leaves room we use the strict end for
what we make, and refuse what the standard refuses even where the usual libraries let it pass.
"""
