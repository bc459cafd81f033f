package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// All returns all rows of a query: each is scanned into what fields returns of
// it. None is an empty slice and not nil.
func All[T any](ctx context.Context, from *sql.DB, fields func(*T) []any, query string, args ...any) (all []T, err error) {
	rows, err := from.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	all = []T{}
	for rows.Next() {
		var row T
		if err := rows.Scan(fields(&row)...); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}
