// Claim check: payloads above a threshold go to an object store; the log carries a reference.
// https://www.enterpriseintegrationpatterns.com/patterns/messaging/StoreInLibrary.html; RFC-009 section 3, RFC-014.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "patterns/assembly.h"
#include "patterns/claim_check/cleanup.h"
#include "patterns/claim_check/options.h"
#include "patterns/components.h"
#include "patterns/pattern.h"

namespace prism::claim_check {

extern const PatternInfo kInfo;

// On the way out. An over-threshold payload is streamed to the store before anything further runs, so that an upload
// that fails publishes nothing, and replaced by attributes: claim_check_id, payload_size and where the object is.
std::unique_ptr<Publisher> make_publisher(std::unique_ptr<Publisher> next, std::shared_ptr<ObjectStore> store,
                                          Options options,
                                          std::shared_ptr<Counted> counted = std::make_shared<Counted>());

// On the way in, in every namespace whatever its chain: a record that carries a reference gets a payload that is
// fetched when it is read and checked against the checksum of the upload. A reference names its store. What is gone is
// PAYLOAD_EXPIRED (cleaned up below the cursor), kMessageRepeated (another record of the same message was acknowledged
// by all groups) or PAYLOAD_MISSING. Of the site only log, state, topics, groups and the namespace's name are used.
std::unique_ptr<Subscriber> make_decoder(std::unique_ptr<Subscriber> next, Assembly::FindObjectStore find, Site site);

std::unique_ptr<Pattern> make_pattern(Options options);
PatternType pattern_type();

}  // namespace prism::claim_check
