#include "runtime/plan/lifetime.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/checked.h"

namespace plumb {

Residence residence_of(Role role) {
    switch (role) {
        case Role::weight:
        case Role::master:
        case Role::grad:
        case Role::moment:
        case Role::state:
        case Role::io:
        case Role::kv_cache:
            return Residence::persistent;
        case Role::io_row:
            return Residence::io_row;
        case Role::activation:
        case Role::scratch:
        case Role::staging:
            return Residence::section;
        case Role::saved:
            return Residence::slot;
    }
    CHECK_NOTE(false, "unknown role");
    return Residence::persistent;
}

bool kv_cache_overlays_stash(const Program& program) {
    return program.section(SectionKind::forward) >= 0;
}

Arena arena_of(const Program& program, Role role) {
    switch (role) {
        case Role::weight:
            return Arena::weights;
        case Role::master:
            return Arena::master;
        case Role::grad:
            return Arena::grads;
        case Role::moment:
            return Arena::moments;
        case Role::state:
            return Arena::state;
        case Role::activation:
        case Role::scratch:
            return Arena::scratch;
        case Role::saved:
            return Arena::stash;
        case Role::io:
        case Role::io_row:
            return Arena::io;
        case Role::kv_cache:
            return kv_cache_overlays_stash(program) ? Arena::stash : Arena::kv_cache;
        case Role::staging:
            return Arena::staging;
    }
    CHECK_NOTE(false, "unknown role");
    return Arena::count;
}

std::vector<SectionId> section_of_ops(const Program& program) {
    std::vector<SectionId> section(program.ops.size(), -1);
    for (size_t s = 0; s < program.sections.size(); ++s) {
        const Section& range = program.sections[s];
        for (int32_t i = range.first_op; i < range.first_op + range.op_count; ++i) {
            SectionId& owner = section.at(static_cast<size_t>(i));
            CHECK_NOTE(owner < 0, "an op belongs to two sections");
            owner = static_cast<SectionId>(s);
        }
    }
    return section;
}

namespace {

void check_tensors(const Program& program) {
    for (const Tensor& tensor : program.tensors) {
        const char* name = tensor.name.c_str();
        CHECK_NOTE(tensor.size_bytes >= 0, name);
        if (tensor.alias_of == kNoTensor) {
            CHECK_NOTE((tensor.role == Role::saved) == (tensor.slot_class != SlotClass::none),
                       name);
            continue;
        }
        const Tensor& root = program.tensors.at(static_cast<size_t>(tensor.alias_of));
        CHECK_NOTE(root.alias_of == kNoTensor, name);
        CHECK_NOTE(tensor.alias_offset_bytes >= 0, name);
        CHECK_NOTE(
            checked_add(tensor.alias_offset_bytes, tensor.size_bytes, name) <= root.size_bytes,
            name);
    }
}

}  // namespace

std::vector<Life> lifetimes(const Program& program) {
    check_tensors(program);
    std::vector<Life> lives(program.tensors.size());
    const auto touch = [&](TensorId id, int32_t op) {
        CHECK(id >= 0 && static_cast<size_t>(id) < program.tensors.size());
        Life& life = lives[static_cast<size_t>(program.root(id))];
        if (!life.used()) life.first = op;
        life.last = op;
    };
    for (size_t i = 0; i < program.ops.size(); ++i) {
        const Op& op = program.ops[i];
        for (int k = 0; k < op.operand_count; ++k)
            if (op.operand[k] != kNoTensor) touch(op.operand[k], static_cast<int32_t>(i));
        if (op.scratch != kNoTensor) touch(op.scratch, static_cast<int32_t>(i));
    }
    const std::vector<SectionId> section = section_of_ops(program);
    for (size_t t = 0; t < lives.size(); ++t) {
        const Tensor& tensor = program.tensors[t];
        const Life& life = lives[t];
        if (!life.used()) continue;
        if (tensor.role == Role::scratch) CHECK_NOTE(life.first == life.last, tensor.name.c_str());
        if (residence_of(tensor.role) == Residence::section)
            CHECK_NOTE(section[static_cast<size_t>(life.first)] >= 0 &&
                           section[static_cast<size_t>(life.first)] ==
                               section[static_cast<size_t>(life.last)],
                       tensor.name.c_str());
    }
    return lives;
}

}  // namespace plumb
