package catalog

// Entry is an instance with its checks, as the registry has them now: for pages and
// commands that show the registry. What requests are sent by is a Snapshot.
type Entry struct {
	Instance
	Checks []Check // by ID; those of its node among them
}

// Check is one of the registry's checks of an instance, in the registry's own words.
type Check struct {
	ID, Name string
	Status   string // Consul's are passing, warning and critical
	Output   string // of the last time it ran, its beginning
}
