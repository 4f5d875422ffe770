// Package auth verifies tokens in every service and signs the calls that services make to each other.
//
// Two kinds of token, told apart by typ, issuer, audience and key, so that one can never stand in for the other:
//
//	at+jwt    user    iss "waybill", aud "waybill"; signed by the gateway, keys from its JWKS
//	svc+jwt   service iss = sub = the caller, aud the callee, 60 s; signed by each service's own key, public keys in one file
//
// Both are Ed25519 and nothing else: the algorithm belongs to the key, never to the token's header. A header may hold alg, kid and typ only;
// whatever could name another key (jku, x5u, jwk, x5c) or change the meaning of the signature (crit, b64, zip) is refused with the whole token.
//
// Nothing in the saga needs the gateway alive: the last good key set is kept, and keys are published before they are used.
package auth
