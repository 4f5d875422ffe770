// Package login turns passwords into tokens, and tokens into newer ones.
//
// A login starts a family of refresh tokens. Each is good once and is exchanged for a successor and a new access token; presenting one that
// was used before ends the family, because then two hold it. Only within 10 s, and only while the successor is unused, the same successor is
// given again: its first answer may have been lost.
//
// What an attacker can see (body, status, time) is the same for a wrong password, an unknown user and one who is locked out for now.
package login
