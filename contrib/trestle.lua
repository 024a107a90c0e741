-- Wireshark and tshark: what trestled hosts say to each other (UDP 7956), decrypted when the keys are given.
--
--	tshark -X lua_script:contrib/trestle.lua -r file.pcap -V -O trestle \
--		-o trestle.cluster_key:HEX64 -o trestle.cluster_id:HEX32 -o 'trestle.hosts:1=HEX32,2=HEX32,...'
--
-- Or copy it into Wireshark's plugin directory and fill in Preferences, Protocols, Trestle. The bytes: docs/wire.md.
--
-- cluster_key  the cluster's secret (several, separated by commas, when keys were rotated); the first one from the state file of any member:
--		sqlite3 -readonly /var/lib/trestle/state.db "SELECT hex(substr(val, 18, 32)) FROM kv WHERE key = CAST('c' AS BLOB)"
-- cluster_id   `trestle status -o json`
-- hosts        host number = host id of each host, `trestle members -o json`
--
-- A nonce needs the full boot tag of the sender, of which an ordinary packet carries one half. A hello, JOIN or WELCOME of that boot has all of it, so
-- the capture has to contain one: it does when it was running while the sender, or who it talks to, started. Whether the tag fits is
-- checked against the receiver that the address suggests, or any of the hosts given; "authentic" says so.
--
-- Nothing here is fast: XChaCha20-Poly1305 and BLAKE2b are written out in Lua, some milliseconds for a full packet.

local bits = bit32 or bit
local WORD = 4294967296

local function xor(a, b) return bits.bxor(a, b) % WORD end
local function rotl(a, n) return bits.bor(bits.lshift(a, n) % WORD, bits.rshift(a, 32 - n) % WORD) % WORD end

-- ---- bytes ----

local function from_hex(text)
	local clean = text:gsub("[%s:]", "")
	if #clean % 2 ~= 0 or clean:find("%X") then return nil end
	return (clean:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function le32(s, at)
	local a, b, c, d = s:byte(at, at + 3)
	return a + b * 256 + c * 65536 + d * 16777216
end

local function put_le32(n)
	return string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536) % 256, math.floor(n / 16777216) % 256)
end

-- ---- ChaCha20 (RFC 8439) and HChaCha20 ----

local function quarter(x, a, b, c, d)
	x[a] = (x[a] + x[b]) % WORD; x[d] = rotl(xor(x[d], x[a]), 16)
	x[c] = (x[c] + x[d]) % WORD; x[b] = rotl(xor(x[b], x[c]), 12)
	x[a] = (x[a] + x[b]) % WORD; x[d] = rotl(xor(x[d], x[a]), 8)
	x[c] = (x[c] + x[d]) % WORD; x[b] = rotl(xor(x[b], x[c]), 7)
end

local function rounds(x)
	for _ = 1, 10 do
		quarter(x, 1, 5, 9, 13); quarter(x, 2, 6, 10, 14); quarter(x, 3, 7, 11, 15); quarter(x, 4, 8, 12, 16)
		quarter(x, 1, 6, 11, 16); quarter(x, 2, 7, 12, 13); quarter(x, 3, 8, 9, 14); quarter(x, 4, 5, 10, 15)
	end
end

local function initial(key, tail)
	local x = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}
	for i = 0, 7 do x[5 + i] = le32(key, 1 + 4 * i) end
	for i = 0, 3 do x[13 + i] = le32(tail, 1 + 4 * i) end
	return x
end

local function hchacha20(key, nonce16)
	local x = initial(key, nonce16)
	rounds(x)
	local out = {}
	for _, i in ipairs({1, 2, 3, 4, 13, 14, 15, 16}) do out[#out + 1] = put_le32(x[i]) end
	return table.concat(out)
end

local function chacha20_block(key, counter, nonce12)
	local first = initial(key, put_le32(counter) .. nonce12)
	local x, out = {}, {}
	for i = 1, 16 do x[i] = first[i] end
	rounds(x)
	for i = 1, 16 do out[i] = put_le32((x[i] + first[i]) % WORD) end
	return table.concat(out)
end

local function chacha20_xor(key, nonce12, text)
	local out = {}
	for at = 1, #text, 64 do
		local stream = chacha20_block(key, 1 + (at - 1) / 64, nonce12)
		for i = at, math.min(at + 63, #text) do out[#out + 1] = string.char(bits.bxor(text:byte(i), stream:byte(i - at + 1)) % 256) end
	end
	return table.concat(out)
end

-- ---- Poly1305 (RFC 8439), ten limbs of 13 bits: every sum of products stays below 2^53 ----

local LIMB = 8192

local function to_limbs(s, top)
	local n, limbs, acc, width, at = #s, {}, 0, 0, 1
	for i = 1, 10 do
		while width < 13 do
			local byte = at <= n and s:byte(at) or (at == n + 1 and top or 0)
			acc = acc + byte * 2 ^ width
			width = width + 8
			at = at + 1
		end
		limbs[i] = acc % LIMB
		acc = math.floor(acc / LIMB)
		width = width - 13
	end
	return limbs
end

local function carry(h)
	for _ = 1, 2 do
		local c = 0
		for i = 1, 10 do
			local v = h[i] + c
			h[i] = v % LIMB
			c = math.floor(v / LIMB)
		end
		h[1] = h[1] + 5 * c -- 2^130 = 5
	end
end

local function multiply(h, r)
	local out = {}
	for i = 1, 10 do
		local sum = 0
		for j = 1, 10 do
			local k = i - j + 1
			if k >= 1 then sum = sum + h[j] * r[k] else sum = sum + 5 * h[j] * r[k + 10] end
		end
		out[i] = sum
	end
	carry(out)
	return out
end

local function poly1305(key, text)
	local clamp = {255, 255, 255, 15, 252, 255, 255, 15, 252, 255, 255, 15, 252, 255, 255, 15}
	local clamped = {}
	for i = 1, 16 do clamped[i] = string.char(bits.band(key:byte(i), clamp[i])) end
	local r = to_limbs(table.concat(clamped), 0)
	local h = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for at = 1, #text, 16 do
		local m = to_limbs(text:sub(at, at + 15), 1)
		for i = 1, 10 do h[i] = h[i] + m[i] end
		h = multiply(h, r)
	end
	carry(h)
	-- h - p = h + 5 - 2^130, if that is not negative
	local g, c = {}, 5
	for i = 1, 10 do
		local v = h[i] + c
		g[i] = v % LIMB
		c = math.floor(v / LIMB)
	end
	if c > 0 then h = g end
	local s = to_limbs(key:sub(17, 32), 0)
	c = 0
	for i = 1, 10 do
		local v = h[i] + s[i] + c
		h[i] = v % LIMB
		c = math.floor(v / LIMB)
	end
	local out, acc, width, at = {}, 0, 0, 1
	for i = 1, 16 do
		while width < 8 do
			acc = acc + (h[at] or 0) * 2 ^ width
			width = width + 13
			at = at + 1
		end
		out[i] = string.char(acc % 256)
		acc = math.floor(acc / 256)
		width = width - 8
	end
	return table.concat(out)
end

local function padded(s) return s .. string.rep("\0", -#s % 16) end

-- nil when the tag does not fit; with aad nil the tag is not looked at.
local function aead_open(key, nonce24, aad, sealed)
	local subkey = hchacha20(key, nonce24:sub(1, 16))
	local nonce12 = "\0\0\0\0" .. nonce24:sub(17)
	local text, tag = sealed:sub(1, -17), sealed:sub(-16)
	if aad then
		local lengths = put_le32(#aad) .. "\0\0\0\0" .. put_le32(#text) .. "\0\0\0\0"
		if poly1305(chacha20_block(subkey, 0, nonce12):sub(1, 32), padded(aad) .. padded(text) .. lengths) ~= tag then return nil end
	end
	return chacha20_xor(subkey, nonce12, text)
end

-- ---- BLAKE2b (RFC 7693) keyed, 32 bytes out, for inputs of one block; words are pairs {low, high} ----

local IV = {
	{0xf3bcc908, 0x6a09e667}, {0x84caa73b, 0xbb67ae85}, {0xfe94f82b, 0x3c6ef372}, {0x5f1d36f1, 0xa54ff53a},
	{0xade682d1, 0x510e527f}, {0x2b3e6c1f, 0x9b05688c}, {0xfb41bd6b, 0x1f83d9ab}, {0x137e2179, 0x5be0cd19},
}
local SIGMA = {
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
	{11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
	{9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
	{12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
	{6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
}

local function add64(a, b)
	local low = a[1] + b[1]
	return {low % WORD, (a[2] + b[2] + math.floor(low / WORD)) % WORD}
end

local function xor64(a, b) return {xor(a[1], b[1]), xor(a[2], b[2])} end

local function rotr64(a, n)
	local low, high = a[1], a[2]
	if n >= 32 then low, high, n = high, low, n - 32 end
	if n == 0 then return {low, high} end
	local function pair(x, y) return bits.bor(bits.rshift(x, n) % WORD, bits.lshift(y, 32 - n) % WORD) % WORD end
	return {pair(low, high), pair(high, low)}
end

local function mix(v, a, b, c, d, x, y)
	v[a] = add64(add64(v[a], v[b]), x); v[d] = rotr64(xor64(v[d], v[a]), 32)
	v[c] = add64(v[c], v[d]); v[b] = rotr64(xor64(v[b], v[c]), 24)
	v[a] = add64(add64(v[a], v[b]), y); v[d] = rotr64(xor64(v[d], v[a]), 16)
	v[c] = add64(v[c], v[d]); v[b] = rotr64(xor64(v[b], v[c]), 63)
end

local function compress(h, block, total, last)
	local v, m = {}, {}
	for i = 1, 8 do v[i], v[i + 8] = h[i], IV[i] end
	v[13] = xor64(v[13], {total, 0})
	if last then v[15] = xor64(v[15], {WORD - 1, WORD - 1}) end
	for i = 0, 15 do m[i] = {le32(block, 1 + 8 * i), le32(block, 5 + 8 * i)} end
	for round = 0, 11 do
		local s = SIGMA[round % 10 + 1]
		mix(v, 1, 5, 9, 13, m[s[1]], m[s[2]]); mix(v, 2, 6, 10, 14, m[s[3]], m[s[4]])
		mix(v, 3, 7, 11, 15, m[s[5]], m[s[6]]); mix(v, 4, 8, 12, 16, m[s[7]], m[s[8]])
		mix(v, 1, 6, 11, 16, m[s[9]], m[s[10]]); mix(v, 2, 7, 12, 13, m[s[11]], m[s[12]])
		mix(v, 3, 8, 9, 14, m[s[13]], m[s[14]]); mix(v, 4, 5, 10, 15, m[s[15]], m[s[16]])
	end
	for i = 1, 8 do h[i] = xor64(h[i], xor64(v[i], v[i + 8])) end
end

local function blake2b_keyed(key, text)
	local h = {}
	for i = 1, 8 do h[i] = IV[i] end
	h[1] = xor64(h[1], {0x01010000 + 256 * #key + 32, 0})
	compress(h, key .. string.rep("\0", 128 - #key), 128, false)
	compress(h, text .. string.rep("\0", 128 - #text), 128 + #text, true)
	local out = {}
	for i = 1, 4 do out[i] = put_le32(h[i][1]) .. put_le32(h[i][2]) end
	return table.concat(out)
end

-- ---- the protocol ----

local trestle = Proto("trestle", "Trestle gossip")
local prefs = trestle.prefs
prefs.port = Pref.uint("UDP port", 7956, "where trestled listens")
prefs.cluster_key = Pref.string("Cluster keys", "", "64 hex digits each, separated by commas")
prefs.cluster_id = Pref.string("Cluster id", "", "32 hex digits")
prefs.hosts = Pref.string("Hosts", "", "host number = host id, separated by commas")

local CLASSES = {[0] = "probe", [1] = "membership", [2] = "push", [3] = "sync", [14] = "hello", [15] = "admission"}
local KINDS = {[1] = "JOIN", [2] = "WELCOME", [3] = "REFUSED"}
local STATES = {[0] = "alive", [1] = "suspect", [2] = "dead", [3] = "left"}
local VERDICTS = {[0] = "sound", [1] = "set back", [2] = "twin", [3] = "twin, the later one"}
local TYPES = {"PING", "ACK", "PING_REQ", "NACK", "INDIRECT_ACK", "MEMBERS", "VERIFY", "VERDICT", "BATCH", "PUSH_ACK", "ROOT", "VECTOR",
	"PULL", "HEADS", "TELL", "RELAY", "RELAY_ACK", "RECALL", "STANDING", "SKETCH_ASK", "SKETCH",
	"BUSY", "AUDIT", "SUMS", "SIGNATURE"}

local f = {
	version = ProtoField.uint8("trestle.version", "Version", base.DEC, nil, 0xf0),
	class = ProtoField.uint8("trestle.class", "Class", base.DEC, CLASSES, 0x0f),
	key_id = ProtoField.uint8("trestle.key_id", "Key id"),
	hostno = ProtoField.uint24("trestle.hostno", "Sender's host number"),
	boot_low = ProtoField.uint32("trestle.boot_low", "Boot tag, low half", base.HEX),
	boot = ProtoField.uint64("trestle.boot", "Boot tag", base.HEX),
	counter = ProtoField.uint64("trestle.counter", "Counter"),
	sealed = ProtoField.bytes("trestle.sealed", "Sealed"),
	tag = ProtoField.bytes("trestle.tag", "Tag"),
	status = ProtoField.string("trestle.status", "Decryption"),
	kind = ProtoField.uint8("trestle.admission.kind", "Kind", base.DEC, KINDS),
	cluster = ProtoField.bytes("trestle.admission.cluster", "Cluster id"),
	token = ProtoField.bytes("trestle.admission.token", "Token id"),
	expires = ProtoField.uint64("trestle.admission.expires", "Token expires"),
	ephemeral = ProtoField.bytes("trestle.admission.ephemeral", "Ephemeral key"),
	echo = ProtoField.uint64("trestle.hello.echo", "Echo", base.HEX),
	ask = ProtoField.uint64("trestle.hello.ask", "Ask", base.HEX),
	type = ProtoField.uint8("trestle.type", "Message", base.DEC),
	name = ProtoField.string("trestle.message", "Message"),
	seq = ProtoField.uint32("trestle.seq", "Sequence"),
	root = ProtoField.bytes("trestle.root", "Root"),
	members = ProtoField.uint64("trestle.members", "Members", base.HEX),
	about = ProtoField.uint24("trestle.about", "About host number"),
	timeout = ProtoField.uint16("trestle.timeout_ms", "Timeout, ms"),
	state = ProtoField.uint8("trestle.state", "State", base.DEC, STATES),
	flags = ProtoField.uint8("trestle.flags", "Flags", base.HEX),
	alive = ProtoField.uint8("trestle.alive", "1 = it answers, else twice the sender's local health"),
	origin = ProtoField.uint24("trestle.origin", "Origin"),
	topic = ProtoField.uint64("trestle.topic", "Topic", base.HEX),
	number = ProtoField.uint64("trestle.number", "Number"),
	key = ProtoField.bytes("trestle.record.key", "Key"),
	value = ProtoField.bytes("trestle.record.value", "Value"),
	tell = ProtoField.uint8("trestle.tell.kind", "For the application, kind"),
	verdict = ProtoField.uint8("trestle.standing.verdict", "How the receiver stands", base.DEC, VERDICTS),
	sketch_key = ProtoField.bytes("trestle.sketch.key", "Key of the comparison"),
	first = ProtoField.uint32("trestle.sketch.first", "First symbol"),
	shards = ProtoField.uint32("trestle.sketch.shards", "Shards of the sender"),
	packets = ProtoField.uint8("trestle.sketch.packets", "Packets asked for"),
	sketch_root = ProtoField.uint64("trestle.sketch.root", "Root of the sender, lower half", base.HEX),
	symbol = ProtoField.bytes("trestle.sketch.symbol", "Symbol"),
	sum = ProtoField.uint64("trestle.audit.sum", "Sum", base.HEX),
	signature = ProtoField.bytes("trestle.signature", "Signature over the admissions in this packet"),
	mark_tag = ProtoField.uint64("trestle.mark.tag", "Tag", base.HEX),
	body = ProtoField.bytes("trestle.body", "Body"),
}
for _, field in pairs(f) do table.insert(trestle.fields, field) end
local bad = ProtoExpert.new("trestle.malformed", "does not have the layout of its type", expert.group.MALFORMED, expert.severity.ERROR)
trestle.experts = {bad}

local frame_keys, hosts, boots, addresses = {}, {}, {}, {}

local function load_hosts()
	hosts = {}
	for number, id in prefs.hosts:gmatch("(%d+)%s*=%s*(%x+)") do hosts[tonumber(number)] = from_hex(id) end
end

local function start()
	frame_keys, boots, addresses = {}, {}, {}
	load_hosts()
end

function trestle.init() start() end

local port

local function listen()
	local ports = DissectorTable.get("udp.port")
	if port then ports:remove(port, trestle) end
	port = prefs.port
	ports:add(port, trestle)
end

function trestle.prefs_changed()
	start()
	listen()
end

-- Of each cluster key given, the key of frames with this id: after a rotation there are several, and which one it was the tag tells.
local function keys_of(id)
	if frame_keys[id] then return frame_keys[id] end
	frame_keys[id] = {}
	for text in prefs.cluster_key:gmatch("%x+") do
		local key = from_hex(text)
		if key and #key == 32 then table.insert(frame_keys[id], blake2b_keyed(key, "trestle frame 1" .. string.char(id))) end
	end
	return frame_keys[id]
end

-- ---- reading what was decrypted: a cursor over a tvb that refuses to pass its end ----

local Cursor = {}
Cursor.__index = Cursor

local function cursor(tvb, at, stop) return setmetatable({tvb = tvb, at = at, stop = stop, bad = false}, Cursor) end

function Cursor:left() return self.stop - self.at end

function Cursor:take(len)
	if self.bad or len > self:left() then
		self.bad = true
		return nil
	end
	local range = self.tvb(self.at, len)
	self.at = self.at + len
	return range
end

function Cursor:add(tree, field, len)
	if len == 0 then return nil end
	local range = self:take(len)
	if range then tree:add(field, range) end
	return range
end

function Cursor:varint()
	local start, value, scale = self.at, 0, 1
	for _ = 1, 10 do
		local range = self:take(1)
		if not range then return nil end
		local byte = range:uint()
		value = value + (byte % 128) * scale
		scale = scale * 128
		if byte < 128 then return value, self.tvb(start, self.at - start) end
	end
	self.bad = true
	return nil
end

function Cursor:add_varint(tree, label)
	local value, range = self:varint()
	if value then
		local item = tree:add(f.number, range, UInt64(value % WORD, math.floor(value / WORD)))
		item:set_text(string.format("%s: %.0f", label, value))
	end
	return value
end

local function head(c, tree)
	local sub = tree:add(c.tvb(c.at, 0), "Head")
	c:add(sub, f.origin, 3)
	c:add(sub, f.topic, 8)
	c:add_varint(sub, "Epoch")
	c:add_varint(sub, "Head")
	c:add(sub, f.flags, 1)
end

local function entry(c, tree)
	local sub = tree:add(c.tvb(c.at, 0), "Entry")
	local who, state = c:add(sub, f.about, 3), c:add(sub, f.state, 1)
	local epoch, incarnation = c:add_varint(sub, "Epoch"), c:add_varint(sub, "Incarnation")
	if incarnation then
		sub:set_text(string.format("Host number %d: %s, epoch %.0f, incarnation %.0f", who:uint(), STATES[state:uint()] or "?",
			epoch, incarnation))
	end
end

local function record(c, tree)
	local sub = tree:add(c.tvb(c.at, 0), "Record")
	c:add_varint(sub, "Sequence, less that of the record before")
	local size = c:take(1)
	if not size then return end
	c:add(sub, f.key, size:uint() % 128)
	if size:uint() >= 128 then
		sub:append_text(", deleted")
	else
		c:add(sub, f.value, c:add_varint(sub, "Length of the value") or 0)
	end
end

local function ping(c, tree)
	c:add(tree, f.seq, 4); c:add_varint(tree, "Epoch"); c:add_varint(tree, "Incarnation")
	c:add(tree, f.root, 16); c:add(tree, f.members, 8)
end

local function repeated(what) return function(c, tree) while c:left() > 0 and not c.bad do what(c, tree) end end end

local entries, heads, records = repeated(entry), repeated(head), repeated(record)
local function seq(c, tree) c:add(tree, f.seq, 4) end

local function mark(c, tree) c:add_varint(tree, "Count"); c:add(tree, f.mark_tag, 8) end

local function sketch(c, tree) c:add(tree, f.sketch_key, 16); c:add(tree, f.first, 4); c:add(tree, f.shards, 4) end
local function symbol(c, tree) c:add(tree, f.symbol, 34) end

local function batch(c, tree)
	local flags = c:add(tree, f.flags, 1)
	if flags and flags:uint() % 16 < 8 then c:add(tree, f.origin, 3) end
	c:add(tree, f.topic, 8); c:add_varint(tree, "Epoch")
	for _, label in ipairs({"From", "To", "Floor", "Head"}) do c:add_varint(tree, label) end
	records(c, tree)
end

local function push_ack(c, tree)
	local first = c:add(tree, f.flags, 1)
	local named = first and first:uint() >= 128
	c:add_varint(tree, "Epoch")
	while c:left() > 0 and not c.bad do
		if named then c:add(tree, f.topic, 8) end
		c:add_varint(tree, "Head")
	end
end

local BODIES = {
	ping, ping,
	function(c, tree) seq(c, tree); c:add(tree, f.about, 3); c:add(tree, f.timeout, 2) end,
	seq, seq,
	function(c, tree) c:add(tree, f.flags, 1); entries(c, tree) end,
	entry,
	function(c, tree) c:add(tree, f.about, 3); c:add_varint(tree, "Epoch"); c:add_varint(tree, "Incarnation"); c:add(tree, f.alive, 1) end,
	batch,
	push_ack,
	function(c, tree) c:add(tree, f.flags, 1); c:add(tree, f.root, 16); c:add(tree, f.members, 8) end,
	function(c, tree)
		for _ = 1, 2 do c:add(tree, f.topic, 8); c:add(tree, f.origin, 3) end
		heads(c, tree)
	end,
	repeated(function(c, tree) c:add(tree, f.flags, 1); head(c, tree) end),
	function(c, tree)
		c:add(tree, f.topic, 8); c:add(tree, f.topic, 8); c:add_varint(tree, "Epoch"); c:add_varint(tree, "Seq")
		repeated(function(h, t) h:add(t, f.topic, 8); h:add_varint(t, "Head") end)(c, tree)
	end,
	function(c, tree) c:add(tree, f.tell, 1); c:add(tree, f.body, c:left()) end,
	batch,
	repeated(head),
	mark,
	function(c, tree) c:add(tree, f.verdict, 1); c:add(tree, f.boot, 8); c:add_varint(tree, "Epoch"); mark(c, tree) end,
	function(c, tree) sketch(c, tree); c:add(tree, f.packets, 1) end,
	function(c, tree) sketch(c, tree); c:add(tree, f.sketch_root, 8); repeated(symbol)(c, tree) end,
	function(c, tree) c:add(tree, f.timeout, 2); repeated(function(h, t) h:add(t, f.about, 3) end)(c, tree) end,
	repeated(function(c, tree) c:add(tree, f.topic, 8); c:add_varint(tree, "Epoch"); c:add_varint(tree, "Head"); c:add(tree, f.sum, 8) end),
	function(c, tree) c:add(tree, f.flags, 1); repeated(function(h, t) h:add(t, f.sum, 8) end)(c, tree) end,
	function(c, tree) c:add(tree, f.signature, 64) end,
}

local function messages(plain, tree, names)
	local c = cursor(plain, 0, plain:len())
	while c:left() > 0 and not c.bad do
		local begin, number = c.at, c:take(1):uint()
		local len = c:varint()
		if not len or len > c:left() then c.bad = true; break end
		local name = TYPES[number] or string.format("type %d", number)
		local sub = tree:add(f.name, plain(begin, c.at - begin + len), name)
		names[#names + 1] = name
		sub:add(f.type, plain(begin, 1))
		local body = cursor(plain, c.at, c.at + len)
		if BODIES[number] then BODIES[number](body, sub) else body:add(sub, f.body, len) end
		if body.bad or (BODIES[number] and body:left() > 0) then
			sub:add_proto_expert_info(bad)
			return
		end
		c.at = c.at + len
	end
	if c.bad then tree:add_proto_expert_info(bad) end
end

-- ---- frames ----

local function receivers(pinfo)
	local guess = addresses[tostring(pinfo.dst) .. " " .. pinfo.dst_port]
	if guess and hosts[guess] then return {[guess] = hosts[guess]} end
	return hosts
end

-- The plaintext, and a sentence about it; nil and why not.
local function open(tvb, pinfo, header_size, hostno, boot)
	local keys, id = keys_of(tvb(1, 1):uint()), hosts[hostno]
	if #keys == 0 then return nil, "no cluster key given" end
	if not id then return nil, string.format("no host id given for host number %d", hostno) end
	if not boot then return nil, "neither hello nor JOIN or WELCOME of this boot in the capture" end
	local raw = tvb:raw()
	local nonce = id:sub(1, 8) .. boot .. raw:sub(header_size - 7, header_size)
	local sealed = raw:sub(header_size + 1)
	local cluster_id = from_hex(prefs.cluster_id)
	if not cluster_id or #cluster_id ~= 16 then return aead_open(keys[1], nonce, nil, sealed), "not verified: no cluster id given" end
	for _, key in ipairs(keys) do
		for number, to in pairs(receivers(pinfo)) do
			local plain = aead_open(key, nonce, raw:sub(1, header_size) .. cluster_id .. to, sealed)
			if plain then return plain, string.format("authentic, for host number %d", number) end
		end
	end
	return nil, "does not fit: another key, cluster, receiver or boot"
end

-- Whose it will be is not said: kept by its low half alone.
local function admitted_boot(range, pinfo, tree)
	tree:add(f.boot, range)
	if not pinfo.visited then boots[tostring(range(4, 4):bytes())] = range:raw(0, 8) end
end

local function admission(tvb, pinfo, tree)
	local kind = tvb(1, 1):uint()
	tree:add(f.kind, tvb(1, 1))
	pinfo.cols.info = KINDS[kind] or string.format("admission of kind %d", kind)
	if kind == 1 and tvb:len() >= 101 then
		tree:add(f.cluster, tvb(5, 16)); tree:add(f.token, tvb(21, 16)); tree:add(f.expires, tvb(37, 8)); tree:add(f.ephemeral, tvb(45, 32))
		admitted_boot(tvb(77, 8), pinfo, tree); tree:add(f.sealed, tvb(85))
	elseif kind == 2 and tvb:len() >= 61 then
		tree:add(f.ephemeral, tvb(5, 32)); admitted_boot(tvb(37, 8), pinfo, tree); tree:add(f.sealed, tvb(45))
	else
		tree:add(f.sealed, tvb(5))
	end
end

local function show_frame(tvb, pinfo, tree, hello)
	local size = hello and 21 or 17
	tree:add(f.key_id, tvb(1, 1))
	tree:add(f.hostno, tvb(2, 3))
	tree:add(hello and f.boot or f.boot_low, tvb(5, size - 13))
	tree:add(f.counter, tvb(size - 8, 8))
	local hostno = tvb(2, 3):uint()
	local boot_key = string.format("%d %s", hostno, tostring(tvb(hello and 9 or 5, 4):bytes()))
	if hello and not pinfo.visited then boots[boot_key] = tvb:raw(5, 8) end
	local plain, why = open(tvb, pinfo, size, hostno, hello and tvb:raw(5, 8) or boots[boot_key] or boots[tostring(tvb(5, 4):bytes())])
	tree:add(f.status, why):set_generated()
	pinfo.cols.info = string.format("%s from host number %d", CLASSES[tvb(0, 1):uint() % 16], hostno)
	if not plain then
		tree:add(f.sealed, tvb(size, tvb:len() - size - 16))
		tree:add(f.tag, tvb(tvb:len() - 16))
		return
	end
	addresses[tostring(pinfo.src) .. " " .. pinfo.src_port] = hostno
	if #plain == 0 then return end
	local clear = ByteArray.new(plain, true):tvb("Trestle, decrypted")
	if hello then
		tree:add(f.echo, clear(0, 8)); tree:add(f.ask, clear(8, 8))
		return
	end
	local names = {}
	messages(clear, tree, names)
	pinfo.cols.info:append(": " .. table.concat(names, ", "))
end

function trestle.dissector(tvb, pinfo, root)
	if tvb:len() < 6 or tvb(0, 1):uint() >= 32 or tvb(0, 1):uint() < 16 then return 0 end
	pinfo.cols.protocol = "Trestle"
	local tree = root:add(trestle, tvb())
	tree:add(f.version, tvb(0, 1))
	tree:add(f.class, tvb(0, 1))
	local class = tvb(0, 1):uint() % 16
	if class == 15 then
		admission(tvb, pinfo, tree)
	elseif CLASSES[class] and tvb:len() >= (class == 14 and 53 or 33) then
		show_frame(tvb, pinfo, tree, class == 14)
	else
		tree:add_proto_expert_info(bad)
	end
	return tvb:len()
end

listen()
