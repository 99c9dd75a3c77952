-- PowerDNS by itself lets a key change everything in its zone. This script, asked for each
-- record of an update, permits the key these types, at mesos and below it. It stands in place of
-- TSIG-ALLOW-DNSUPDATE for every zone of this server: whoever else updates zones here needs a
-- rule of their own.
local domain = newDN("mesos.")
local types = { [pdns.A] = true, [pdns.AAAA] = true, [pdns.SRV] = true, [pdns.TXT] = true }
-- In a reverse zone it needs PTR, and TXT at _mesozone-<owner>.
-- local reverse = newDN("10.in-addr.arpa.")
-- local pointers = { [pdns.PTR] = true, [pdns.TXT] = true }

function updatepolicy(input)
  if input:getTsigName():toString() == "mesozone."
    and types[input:getQType()]
    and input:getQName():isPartOf(domain)
  then
    return true
  end
  -- if input:getTsigName():toString() == "mesozone."
  --   and pointers[input:getQType()]
  --   and input:getQName():isPartOf(reverse)
  -- then
  --   return true
  -- end
  -- After `return false` PowerDNS leaves the record out and still answers NOERROR. An error
  -- refuses the whole message, with SERVFAIL.
  error("not permitted to mesozone: " .. input:getQName():toString())
end
