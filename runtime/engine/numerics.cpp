#include "runtime/engine/numerics.h"

#include <fmt/format.h>

namespace plumb {

Hash128 numerics_hash(const Session& session) {
    const RunConfig& config = session.config();
    Hasher hasher;
    hasher.text("numerics 1");
    hasher.text(isa_name(session.device().isa));
    hasher.number(config.run.batch.micro_batch);
    hasher.number(config.run.train.loss_chunk);
    hasher.number(static_cast<int64_t>(config.layout.reduction));
    const Hash128 products =
        session.gpu() == nullptr ? Hash128{} : session.gpu()->products().bound_hash;
    hasher.bytes(&products, sizeof products);
    return hasher.finish();
}

std::string numerics_difference(const Hash128& checkpoint, const Hash128& now) {
    if (checkpoint == Hash128{} || checkpoint == now) return "";
    return fmt::format("numerics: {} in the checkpoint, {} now: last digits may differ",
                       to_hex(checkpoint), to_hex(now));
}

}  // namespace plumb
