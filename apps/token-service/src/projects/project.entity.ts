import type { ProjectRole } from '@latchkey/contracts';
import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A project: it owns project tokens, and its members hold scopes by their role. */
@Entity({ name: 'projects' })
export class ProjectEntity {
  @PrimaryColumn({ type: 'uuid' }) id!: string;
  @Column({ type: 'text' }) name!: string;
  @Column({ type: 'text' }) description!: string;
  @Column({ name: 'closed_at', type: 'timestamptz', nullable: true }) closedAt!: Date | null;
  @Column({ name: 'created_at', type: 'timestamptz' }) createdAt!: Date;
}

/** A person's membership of a project. */
@Entity({ name: 'members' })
export class MemberEntity {
  @PrimaryColumn({ name: 'project_id', type: 'uuid' }) projectId!: string;
  @PrimaryColumn({ name: 'user_id', type: 'uuid' }) userId!: string;
  @Column({ type: 'text' }) role!: ProjectRole;
  @Column({ name: 'created_at', type: 'timestamptz' }) createdAt!: Date;
}
