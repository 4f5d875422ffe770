// Package failpoint names the places where a process may die, so that tests can have it die there.
//
// A place is a call of Hit between two effects: a commit, a publication, a call to another program, a mark. Without the
// build tag failpoints, Hit is an empty function that the compiler leaves out, names included; images and releases are built
// so. With the tag, a place does what the file named after it says, if there is one in the directory
// $WAYBILL_FAILPOINTS/<program>:
//
//	kill        the process kills itself with SIGKILL
//	pause 2s    it sleeps, and goes on
//	error       Hit returns an error
//
// "kill@3" is the third hit, "error*8" the first eight, "error~0.03" three of a hundred for as long as the file is there: behind
// an effect that is the fault "did happen, and the caller is told otherwise". Any other file that has come to act is renamed to <name>.fired, which at the
// same time takes it away from the other processes of the program and from the one that is started next.
//
// docs/failpoints.md lists the places; make test-failpoints kills a service at each of them.
package failpoint
