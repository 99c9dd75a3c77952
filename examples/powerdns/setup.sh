#!/bin/sh
# Makes the zone, the key and the rights of the key. Run it once, as the user pdns, before the
# server starts; it needs the packages pdns-backend-sqlite3 and sqlite3.
set -eu
database=/var/lib/powerdns/pdns.sqlite3
pdnsutil() { command pdnsutil --config-dir=/etc/powerdns "$@"; }

# A write-ahead log lets a transfer read the zone while an update writes to it.
sqlite3 "$database" 'PRAGMA journal_mode=WAL' \
	'.read /usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql'

# mesos.zone stands beside this script. NATIVE: see primary=no in pdns.conf.
pdnsutil load-zone mesos "$(dirname "$0")/mesos.zone"
pdnsutil set-kind mesos native

# The key file is the one that mesozone reads: tsig-keygen mesozone > /etc/mesozone/powerdns.key
pdnsutil import-tsig-key mesozone hmac-sha256 \
	"$(sed -n 's/.*secret "\(.*\)".*/\1/p' /etc/mesozone/powerdns.key)"

# Who may read the zone, and who may update it wherever updates.lua is not in use.
pdnsutil set-meta mesos TSIG-ALLOW-AXFR mesozone
pdnsutil set-meta mesos TSIG-ALLOW-DNSUPDATE mesozone
# An update raises the serial, by which mesozone and every secondary see that there was one.
pdnsutil set-meta mesos SOA-EDIT-DNSUPDATE INCREASE

# A reverse zone, one of `reverse` in mesozone.toml and a target of its own; 10.zone is like mesos.zone.
# pdnsutil load-zone 10.in-addr.arpa "$(dirname "$0")/10.zone"
# pdnsutil set-kind 10.in-addr.arpa native
# pdnsutil set-meta 10.in-addr.arpa TSIG-ALLOW-AXFR mesozone
# pdnsutil set-meta 10.in-addr.arpa TSIG-ALLOW-DNSUPDATE mesozone
# pdnsutil set-meta 10.in-addr.arpa SOA-EDIT-DNSUPDATE INCREASE
