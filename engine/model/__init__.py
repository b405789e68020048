"""The words of the domain as frozen data: identities, manifest, message, status, errors. No I/O."""
