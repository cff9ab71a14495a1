"""The one database: tables, migrations, and a store that lets one thread write."""
